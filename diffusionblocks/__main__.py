"""`python -m diffusionblocks VERB ...`: by the workflow's warm process where there is one, else right here."""

from diffusionblocks.base.hand_over import hand_over

if __name__ == "__main__":
    hand_over()

    from diffusionblocks.verbs import main

    main()
