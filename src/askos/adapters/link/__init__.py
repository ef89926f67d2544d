"""The link between agents and servers over gRPC. The agent dials; calls travel on the same connection."""
