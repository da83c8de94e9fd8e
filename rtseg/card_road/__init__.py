"""The road over the card: a decoded picture stays in its memory until it is coloured."""
