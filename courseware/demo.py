"""A trained model for the chapters that need one: the reader's own of chapter 10, or a small one trained now."""

from __future__ import annotations

import torch

from courseware import corpus, paths

OWN = paths.ROOT / "data" / "models" / "10_training" / "best"
QUICK = paths.ROOT / "data" / "models" / "quick"


def shakespeare_model(steps: int = 300):
    """Return (model, tokenizer): a MiniGPT that has read Shakespeare, in evaluation mode.

    The model that chapter 10 trained and kept, if it is there; else one of the same kind after `steps` steps (half a
    minute on two cores), which is kept for the next time. Prints which of the two it is.
    """
    from minigpt_lib.char_tokenizer import CharTokenizer
    from minigpt_lib.data import get_batch, train_val_split
    from minigpt_lib.model import GPTConfig, MiniGPT

    text = corpus.shakespeare()
    tokenizer = CharTokenizer.from_text(text)
    for folder, whose in ((OWN, "the model of chapter 10"), (QUICK, "a quick model")):
        if (folder / "model.safetensors").is_file():
            print(f"{whose}, from {folder.relative_to(paths.ROOT)}")
            return MiniGPT.from_pretrained(folder), tokenizer
    tokens, _ = train_val_split(torch.tensor(tokenizer.encode(text)))
    torch.manual_seed(0)
    model = MiniGPT(GPTConfig.preset("laptop", vocab_size=tokenizer.vocab_size))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for _ in range(steps):
        model(*get_batch(tokens, 32, 64))[1].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    model.save_pretrained(QUICK)
    print(f"chapter 10 has not been run here: trained a quick model for {steps} steps")
    return model.eval(), tokenizer
