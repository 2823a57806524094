/* The smallest PV kernel that Xen takes.  It is never run. */
        .macro note type
        .align 4
        .long 4, 2f - 1f, \type
        .asciz "Xen"
1:
        .endm
        .section .note.Xen, "a", @note
        note 8                  /* LOADER */
        .asciz "generic"
2:      note 5                  /* XEN_VERSION */
        .asciz "xen-3.0"
2:      note 3                  /* VIRT_BASE */
        .quad 0x200000
2:      note 4                  /* PADDR_OFFSET */
        .quad 0x200000
2:      note 2                  /* HYPERCALL_PAGE */
        .quad hypercalls
2:
        .text
        .globl _start
_start: jmp _start
        .align 4096
hypercalls:
        .skip 4096
