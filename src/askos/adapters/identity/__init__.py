"""Identity built in: the part of Keystone that clients use, on the cloud's own database."""
