"""The log: places are given (sequencer), batches committed (committer), readers served (reader)."""
