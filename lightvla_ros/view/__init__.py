"""Pictures of what the policy looks at."""
