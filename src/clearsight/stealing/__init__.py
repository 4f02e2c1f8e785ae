"""`steal`: how well a model can be cloned through its answers, and what defences of them come to."""
