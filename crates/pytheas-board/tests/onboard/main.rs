//! The package that runs on boards (`micropython/pytheas`), on MicroPython itself: the Unix port with
//! a folder for its flash, and an emulated board whose power is cut.

mod guard;
mod hub;
mod image;
mod node;
mod power;
mod signature;
mod sizes;
mod unix;
