"""How much one provider disturbs another, and how many calls one worker polls in time."""
