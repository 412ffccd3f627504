"""What ``shrink`` tries, and how it judges that on inputs that nothing was fitted to."""
