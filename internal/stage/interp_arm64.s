//go:build linux

#include "textflag.h"

// See interp_amd64.s. R19 next operation, R21 program base (failure record), R22 argument mask.
TEXT ·interp(SB),NOSPLIT|NOFRAME,$0-0
loop:
	MOVWU	56(R19), R22
	MOVD	8(R19), R0
	MOVD	16(R19), R1
	MOVD	24(R19), R2
	MOVD	32(R19), R3
	MOVD	40(R19), R4
	MOVD	48(R19), R5
	CBZ	R22, loaded
	TBZ	$0, R22, a1
	MOVD	(R0), R0
a1:
	TBZ	$1, R22, a2
	MOVD	(R1), R1
a2:
	TBZ	$2, R22, a3
	MOVD	(R2), R2
a3:
	TBZ	$3, R22, a4
	MOVD	(R3), R3
a4:
	TBZ	$4, R22, a5
	MOVD	(R4), R4
a5:
	TBZ	$5, R22, loaded
	MOVD	(R5), R5
loaded:
	MOVD	0(R19), R8
	TBNZ	$63, R8, pseudo
	SVC
	CMN	$4095, R0
	BCS	failed
	MOVD	R0, 80(R19)
jump:
	MOVW	60(R19), R9
	ADD	R9, R19
next:
	ADD	$88, R19
	B	loop

pseudo:
	CMN	$1, R8 // copy
	BNE	notcopy
	MOVD	(R0), R9
	MOVD	R9, (R1)
	B	next
notcopy:
	MOVD	(R0), R9
	CMN	$2, R8 // jump if zero
	BNE	notjz
	CBZ	R9, jump
	B	next
notjz:
	CMN	$3, R8 // add
	BNE	notadd
	ADD	R1, R9
	MOVD	R9, (R0)
	B	next
notadd:
	CMN	$4, R8 // jump if below
	BNE	notjb
	CMP	R1, R9
	BLO	jump
	B	next
notjb:
	CBNZ	R9, next // fail if zero
	MOVD	R1, R20
	B	report

failed:
	NEG	R0, R20
	CMP	$11, R20 // EAGAIN from openat2, see interp_amd64.s
	BNE	given
	MOVD	0(R19), R9
	CMP	$437, R9
	BEQ	loop
given:
	MOVWU	64(R19), R9
	CMPW	R9, R20
	BEQ	ignored
	MOVWU	68(R19), R9
	CMPW	R9, R20
	BEQ	ignored
	MOVWU	72(R19), R9
	CMPW	R9, R20
	BEQ	ignored
report:
	MOVD	R19, 0(R21)
	MOVD	R20, 8(R21)
	MOVD	16(R21), R0
	MOVD	R21, R1
	MOVD	$16, R2
	MOVD	$64, R8 // write
	SVC
	MOVD	$127, R0
	MOVD	$94, R8 // exit_group
	SVC
	BRK
ignored:
	MOVW	76(R19), R9
	ADD	R9, R19
	B	next

	// end marker: searched for by code(), never reached
	WORD	$0x73656e64
	WORD	$0x63616973
	RET

// func interpAddr() uintptr
TEXT ·interpAddr(SB),NOSPLIT,$0-8
	MOVD	$·interp(SB), R0
	MOVD	R0, ret+0(FP)
	RET

// func cloneInterp(nr, a0, a1, a2, a3, a4, entry, base uintptr) uintptr
TEXT ·cloneInterp(SB),NOSPLIT|NOFRAME,$0-72
	MOVD	nr+0(FP), R8
	MOVD	a0+8(FP), R0
	MOVD	a1+16(FP), R1
	MOVD	a2+24(FP), R2
	MOVD	a3+32(FP), R3
	MOVD	a4+40(FP), R4
	MOVD	entry+48(FP), R19
	MOVD	base+56(FP), R21
	SVC
	CBZ	R0, child
	MOVD	R0, ret+64(FP)
	RET
child:
	B	·interp(SB)
