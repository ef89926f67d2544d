"""zun-tempest-plugin, unmodified, against a cloud of its own (`make tempest`)."""
