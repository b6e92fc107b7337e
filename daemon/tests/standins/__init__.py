"""Stand-ins for accelerators, for tests only: libraries and a serial board that answer as the vendors' do."""
