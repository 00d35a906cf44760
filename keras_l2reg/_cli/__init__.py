"""What `python -m keras_l2reg` needs beside the audit: files told apart, errors."""
