"""What stands around the staging host on its network: downloads and the image registry."""
