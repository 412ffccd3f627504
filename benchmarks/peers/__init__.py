"""What ``peer.py`` is made of: both sides as processes, the sweep, encrypted runs, figures."""
