"""The embedded host network: Linux bridges, veths, nftables and a name service, driven through CNI.

Start reading at `network.py`; `docs` of the operator's side are in its class.
"""
