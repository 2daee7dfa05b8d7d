// Package linux holds one thin function for each system call that the packages of caisson need and that
// neither os nor x/sys offers in a safe form.
//
// Every function but [ReadFile] takes and returns *os.File, holds the file open for the length of the call, makes every
// new descriptor close-on-exec, repeats a call that a signal interrupted, and refuses a nil file instead of
// using the current directory. Errors are *os.SyscallError named after the call, so that errors.Is reaches
// the errno.
package linux
