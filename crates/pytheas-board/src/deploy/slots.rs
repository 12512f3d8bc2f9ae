//! A signed image for a board that was set up (`pytheas board setup`).
