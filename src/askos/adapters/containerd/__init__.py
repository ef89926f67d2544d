"""The runtime port over containerd: CRI for pods, its own API for what CRI lacks."""
