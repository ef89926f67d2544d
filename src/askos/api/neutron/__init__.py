"""Neutron v2.0's wire format under /networking, as far as users of containers need it."""
