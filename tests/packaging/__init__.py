"""What is around the code: the wheel, the layers, the configuration, the compose file, the README."""
