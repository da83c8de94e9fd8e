"""Video files and images: process, batch, resume and verify."""
