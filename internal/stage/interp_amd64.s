//go:build linux

#include "textflag.h"

// The interpreter performs an encoded program (see program.Encode for the layout). It is position
// independent and uses no stack, no goroutine and no thread-local storage, so the same bytes serve twice:
// in the child that shares this process's memory for a moment, and copied into the stage's executable.
//
//	R12 next operation    R13 program base (failure record)    BX argument mask    R9.. arguments
//
// Copying starts at ·interp and ends before the marker below.
TEXT ·interp(SB),NOSPLIT|NOFRAME,$0-0
loop:
	MOVL	56(R12), BX
	MOVQ	8(R12), DI
	MOVQ	16(R12), SI
	MOVQ	24(R12), DX
	MOVQ	32(R12), R10
	MOVQ	40(R12), R8
	MOVQ	48(R12), R9
	TESTL	BX, BX
	JEQ	loaded
	TESTL	$1, BX
	JEQ	a1
	MOVQ	(DI), DI
a1:
	TESTL	$2, BX
	JEQ	a2
	MOVQ	(SI), SI
a2:
	TESTL	$4, BX
	JEQ	a3
	MOVQ	(DX), DX
a3:
	TESTL	$8, BX
	JEQ	a4
	MOVQ	(R10), R10
a4:
	TESTL	$16, BX
	JEQ	a5
	MOVQ	(R8), R8
a5:
	TESTL	$32, BX
	JEQ	loaded
	MOVQ	(R9), R9
loaded:
	MOVQ	0(R12), AX
	TESTQ	AX, AX
	JLT	pseudo
	SYSCALL
	CMPQ	AX, $-4095
	JCC	failed
	MOVQ	AX, 80(R12)
jump:
	MOVLQSX	60(R12), CX
	ADDQ	CX, R12
next:
	ADDQ	$88, R12
	JMP	loop

pseudo:
	CMPQ	AX, $-1 // copy
	JNE	notcopy
	MOVQ	(DI), AX
	MOVQ	AX, (SI)
	JMP	next
notcopy:
	CMPQ	AX, $-2 // jump if zero
	JNE	notjz
	CMPQ	0(DI), $0
	JEQ	jump
	JMP	next
notjz:
	CMPQ	AX, $-3 // add
	JNE	notadd
	ADDQ	SI, (DI)
	JMP	next
notadd:
	CMPQ	AX, $-4 // jump if below
	JNE	notjb
	CMPQ	0(DI), SI
	JCS	jump
	JMP	next
notjb:
	CMPQ	0(DI), $0 // fail if zero
	JNE	next
	MOVQ	SI, AX
	JMP	report

failed:
	NEGQ	AX
	CMPQ	AX, $11 // EAGAIN from openat2: something was renamed or mounted meanwhile, anywhere; once more
	JNE	given
	CMPQ	0(R12), $437
	JEQ	loop
given:
	CMPL	AX, 64(R12)
	JEQ	ignored
	CMPL	AX, 68(R12)
	JEQ	ignored
	CMPL	AX, 72(R12)
	JEQ	ignored
report:
	MOVQ	R12, 0(R13)
	MOVQ	AX, 8(R13)
	MOVQ	16(R13), DI
	MOVQ	R13, SI
	MOVL	$16, DX
	MOVL	$1, AX // write
	SYSCALL
	MOVL	$127, DI
	MOVL	$231, AX // exit_group
	SYSCALL
	INT	$3
ignored:
	MOVLQSX	76(R12), CX
	ADDQ	CX, R12
	JMP	next

	// end marker: searched for by code(), never reached
	QUAD	$0x6361697373656e64
	RET

// func interpAddr() uintptr
TEXT ·interpAddr(SB),NOSPLIT,$0-8
	LEAQ	·interp(SB), AX
	MOVQ	AX, ret+0(FP)
	RET

// func cloneInterp(nr, a0, a1, a2, a3, a4, entry, base uintptr) uintptr
//
// Makes the child with clone3 or clone; the child runs the program and never returns. With CLONE_VFORK the
// parent waits, so the child may use the parent's stack pointer: it pushes nothing.
TEXT ·cloneInterp(SB),NOSPLIT|NOFRAME,$0-72
	MOVQ	nr+0(FP), AX
	MOVQ	a0+8(FP), DI
	MOVQ	a1+16(FP), SI
	MOVQ	a2+24(FP), DX
	MOVQ	a3+32(FP), R10
	MOVQ	a4+40(FP), R8
	MOVQ	entry+48(FP), R12
	MOVQ	base+56(FP), R13
	SYSCALL
	TESTQ	AX, AX
	JEQ	child
	MOVQ	AX, ret+64(FP)
	RET
child:
	JMP	·interp(SB)
