// SPDX-License-Identifier: Apache-2.0
#include "textflag.h"

// func entry()
//
// The kernel starts the program here: RSP points to argc, argv and envp. What
// follows is on the stack that the kernel made, in no goroutine.
TEXT ·entry(SB), NOSPLIT|NOFRAME, $0
	// The frame of a caller: 0(RSP) is for the link register, arguments follow. RSP
	// stays a multiple of 16, which it is when the kernel starts a program.
	MOVD RSP, R0
	SUB  $32, RSP
	MOVD ZR, 0(RSP)
	MOVD R0, 8(RSP)
	MOVD ZR, g                   // no goroutine: whatever needs one crashes
	BL   ·early(SB)
	ADD  $32, RSP
	JMP  _rt0_arm64_linux(SB)    // the runtime's own entry
