"""Work on many pictures cut into shards, which processes of this machine or of a Ray cluster share."""
