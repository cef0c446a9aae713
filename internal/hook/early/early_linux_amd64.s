// SPDX-License-Identifier: Apache-2.0
#include "textflag.h"

// func entry()
//
// The kernel starts the program here: SP points to argc, argv and envp. What
// follows is on the stack that the kernel made, in no goroutine.
TEXT ·entry(SB), NOSPLIT|NOFRAME, $0
	MOVQ SP, BX

	// A Go function called from assembly looks for its goroutine in
	// thread-local storage, eight bytes before where FS points. There is none,
	// but there must be something to look at.
	MOVQ $158, AX                // arch_prctl
	MOVQ $0x1002, DI             // ARCH_SET_FS
	LEAQ ·nothing+8(SB), SI
	SYSCALL

	SUBQ $32, SP
	ANDQ $~15, SP
	MOVQ BX, 16(SP)
	MOVQ BX, 0(SP)
	CALL ·early(SB)
	MOVQ 16(SP), SP
	JMP  _rt0_amd64_linux(SB)    // the runtime's own entry; it sets FS anew
