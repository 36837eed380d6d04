"""How messages travel: frames over pipes and sockets."""
