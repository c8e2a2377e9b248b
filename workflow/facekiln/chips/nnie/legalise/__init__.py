"""From any Caffe network to one inside the NNIE's limits."""
