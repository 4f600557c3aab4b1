//! Windows has nothing like System V shared memory; the module exists so that both platforms have
//! the same rooms, and stays empty.
