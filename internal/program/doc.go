// Package program represents the start of a container as data: a flat list of system calls with their
// arguments, grouped into readable steps.
//
// One [Program] serves four uses, and that is the reason it exists:
//
//   - package stage writes it into a tiny executable, whose only code is a loop that performs the list;
//   - [Program.Explain] prints it in the form strace uses, before anything is done;
//   - [Program.Run] performs it on the calling thread, for callers that need no new process;
//   - a failure comes back as the index of an operation and an errno, which [Program.Error] turns into an
//     error that names the step, the object and the system call.
//
// A program has no control flow of its own beyond what a start needs: an operation may tolerate some errnos,
// and may then jump to a [Label]. Files that the host holds are named inputs, resolved to descriptor numbers
// only when the program is encoded; what an operation returns can be an argument of a later one.
package program
