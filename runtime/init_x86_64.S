/* The container's init (`init: true`) for x86-64: what child.py's is in Python, as a program of its own. Process 1 becomes it once
 * it has forked the command, so that nothing of the launcher's memory is left in the container, whatever capabilities there are.
 *
 * The bytes are in native.py, which puts an ELF header before them; a test assembles this file and compares.
 *
 * Every signal is blocked when it begins. Its environment is one word: the pid of the command, in decimal. Who has forked the command
 * in the program that enters a container (launch_x86_64.S) goes on at `init`, with the pid in ebx.
 *
 * Where a filter forbids to wait for signals it waits for children, and where it forbids that too, it ends.
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
        ja      init
        imul    ebx, ebx, 10
        add     ebx, eax
        inc     rsi
        jmp     digit
        .balign 64
init:
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
        mov     r13d, 1                 # WNOHANG, while signals tell when there is somebody to wait for

next:
        mov     rdi, rbp
        xor     esi, esi
        xor     edx, edx
        mov     r10d, 8
        mov     eax, 128                # rt_sigtimedwait
        syscall
        cmp     eax, 17                 # SIGCHLD
        je      reap
        cmp     eax, -4                 # EINTR: it was stopped
        je      next
        test    eax, eax
        jle     deaf
        mov     edi, ebx
        mov     esi, eax
        mov     eax, 62                 # kill
        syscall
        jmp     next

deaf:
        xor     r13d, r13d
reap:
        mov     rdi, -1
        mov     rsi, rsp
        mov     edx, r13d
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
        jns     end
        test    r13d, r13d
        jnz     next
        mov     r12d, 125
end:
        mov     edi, r12d
        mov     eax, 231                # exit_group
        syscall
        hlt
name:
        .asciz  "init"
