"""Provider control as workers use it: admission, the breaker's and deadlines' rules, snapshots."""
