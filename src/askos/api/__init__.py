"""Wire formats: Zun v1, Keystone v3 (embedded) and the native API. Nothing inside knows them."""
