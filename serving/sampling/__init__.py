"""infosink.v1.SamplingService: requests checked, samples drawn and codes inferred, replies encoded."""
