"""orch: checkpoint and restore whole jobs."""
