"""How a thief chooses the pictures to ask a model about; one file, one method."""
