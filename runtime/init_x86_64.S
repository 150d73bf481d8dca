/* The container's init (`init: true`) for x86-64: what child.py's is in Python, as a program of its own. Process 1 becomes it once
 * it has forked the command, so that nothing of the launcher's memory is left in the container, whatever capabilities there are.
 *
 * The bytes are in native.py, which puts an ELF header before them; a test assembles this file and compares.
 *
 * Every signal is blocked when it begins. Its environment is one word: the pid of the command, in decimal.
 */
        .intel_syntax noprefix
        .text
        .globl  _start
_start:
        mov     rsi, [rsp + 24]         # argc (1), argv[0], NULL, envp[0]
        xor     ebx, ebx                # the command's pid
digit:
        movzx   eax, byte ptr [rsi]
        sub     eax, '0'
        cmp     eax, 9
        ja      parsed
        imul    ebx, ebx, 10
        add     ebx, eax
        inc     rsi
        jmp     digit
parsed:
        mov     edi, 4                  # PR_SET_DUMPABLE
        xor     esi, esi
        mov     eax, 157                # prctl
        syscall
        mov     edi, 15                 # PR_SET_NAME
        lea     rsi, [rip + name]
        mov     eax, 157
        syscall
        push    -1                      # all signals
        mov     rbp, rsp
        push    0                       # a status
        mov     r12d, -1                # the command's exit status

next:
        mov     rdi, rbp
        xor     esi, esi
        xor     edx, edx
        mov     r10d, 8
        mov     eax, 128                # rt_sigtimedwait
        syscall
        cmp     eax, 17                 # SIGCHLD
        je      reap
        test    eax, eax
        jle     next
        mov     edi, ebx
        mov     esi, eax
        mov     eax, 62                 # kill
        syscall
        jmp     next

reap:
        mov     rdi, -1
        mov     rsi, rsp
        mov     edx, 1                  # WNOHANG
        xor     r10d, r10d
        mov     eax, 61                 # wait4
        syscall
        test    eax, eax
        jle     reaped
        cmp     eax, ebx
        jne     reap
        mov     r12d, [rsp]
        mov     eax, r12d
        and     eax, 0x7f               # the signal that ended it
        jnz     signaled
        movzx   r12d, byte ptr [rsp + 1]
        jmp     reap
signaled:
        lea     r12d, [rax + 128]
        jmp     reap
reaped:
        test    r12d, r12d
        js      next
        mov     edi, r12d
        mov     eax, 231                # exit_group
        syscall
        hlt
name:
        .asciz  "init"
