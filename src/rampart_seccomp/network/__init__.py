"""Host names: the DNS of a tree ends here, is judged, and is answered with what the host's resolver says."""
