/* The launcher's loop in native code, for x86-64: clone3 with CLONE_VM | CLONE_VFORK, and in the child the calls of a program
 * (see program.py) up to execve. No page table is copied and no page is: a start costs what its system calls cost.
 *
 * The bytes are in native.py, where the launcher maps them; a test assembles this file and compares. So there is nothing to
 * compile when pysup is installed.
 *
 *     long launch(struct job *job);
 *
 *     struct job {
 *         struct clone_args *clone_args; u64 size;     0, 8
 *         struct call *calls;                          16    64 bytes each: number, six arguments, rule
 *         u64 first, last;                             24, 32
 *         struct { u32 call, place; } *results;        40    ordered by call, ended by a call of ~0
 *         struct { s32 call, error; } failure;         48    written by a child that did not reach execve
 *         s64 report;                                  56    and where that is written to, if it is not -1
 *         void *init;                                  64    where who has forked goes on: see `entry`
 *     };
 *
 * It returns what clone3 returned. The child shares the parent's stack, and the parent waits: so the child never touches the
 * stack, and keeps all it needs in registers that system calls preserve.
 *
 * The same loop is the program that enters a container apart from the launcher's memory: see native.py. That begins at `entry`, with
 * its job behind it, and knows two calls more, which are none of the kernel's: to clone and leave, and to fork and go on as the
 * init of who was forked.
 */
        .intel_syntax noprefix
        .text
        .globl  launch
launch:
        push    rbx
        push    rbp
        push    r12
        push    r13
        push    r14
        push    r15
        mov     rbx, rdi
        mov     rdi, [rbx]
        mov     rsi, [rbx + 8]
        mov     eax, 435                # clone3
        syscall
        test    rax, rax
        jz      child
        pop     r15
        pop     r14
        pop     r13
        pop     r12
        pop     rbp
        pop     rbx
        ret

child:
        mov     r12, [rbx + 16]         # calls, and base of all places
        mov     r13, [rbx + 24]         # index of the call
        mov     r14, [rbx + 40]         # next result to store
        xor     ebp, ebp                # the error last forgiven
next:
        cmp     r13, [rbx + 32]
        jae     exhausted
        mov     r15, r13
        shl     r15, 6
        add     r15, r12
        mov     rax, [r15]
        mov     rdi, [r15 + 8]
        mov     rsi, [r15 + 16]
        mov     rdx, [r15 + 24]
        mov     r10, [r15 + 32]
        mov     r8, [r15 + 40]
        mov     r9, [r15 + 48]
        test    rax, rax
        js      fork
        syscall                         # clobbers rcx and r11
done:
        mov     rcx, [r15 + 56]         # the rule
        cmp     rax, -4096
        ja      failed
        xor     ebp, ebp
store:
        cmp     r13d, [r14]
        jne     advance
        mov     edx, [r14 + 4]
        add     r14, 8
        btr     edx, 31                 # NARROW
        jc      narrow
        mov     [r12 + rdx], rax
        jmp     store
narrow:
        mov     [r12 + rdx], eax
        jmp     store
advance:
        inc     r13
        jmp     next

failed:
        mov     edx, eax
        neg     edx                     # errno
        cmp     dl, cl                  # one of the four that the rule forgives?
        je      forgive
        shr     ecx, 8
        cmp     dl, cl
        je      forgive
        shr     ecx, 8
        cmp     dl, cl
        je      forgive
        shr     ecx, 8
        cmp     dl, cl
        je      forgive
        mov     eax, edx
        jmp     report
forgive:
        test    ebp, ebp                # keep what says more than "not there"
        jz      remember
        cmp     ebp, 2                  # ENOENT
        je      remember
        cmp     ebp, 20                 # ENOTDIR
        jne     store
remember:
        mov     ebp, edx
        jmp     store

exhausted:
        dec     r13
        mov     eax, ebp
report:
        mov     [rbx + 48], r13d
        mov     [rbx + 52], eax
        mov     rdi, [rbx + 56]
        lea     rsi, [rbx + 48]
        mov     edx, 8
        mov     eax, 1                  # write
        syscall
        mov     edi, 125
        mov     eax, 231                # exit_group
        syscall
        hlt

fork:
        cmp     rax, -2
        je      pass
        push    -1                      # with every signal blocked, so that the init misses none
        call    mask
        mov     edi, 17                 # SIGCHLD
        xor     esi, esi
        xor     edx, edx
        xor     r10d, r10d
        xor     r8d, r8d
        mov     eax, 56                 # clone
        syscall
        test    rax, rax
        jg      parent
        pop     rcx
        push    0
        mov     r12, rax
        call    mask
        mov     rax, r12
        mov     r12, [rbx + 16]
        pop     rcx
        jmp     done
parent:
        mov     ebp, eax
        xor     edi, edi
        mov     esi, -1
        xor     edx, edx
        mov     eax, 436                # close_range
        syscall
        mov     rax, [rbx + 64]
        mov     ebx, ebp
        jmp     rax
pass:
        mov     eax, 56                 # clone
        syscall
        test    rax, rax
        jle     done
        xor     edi, edi
        mov     eax, 231                # exit_group
        syscall
        hlt
mask:
        mov     edi, 2                  # SIG_SETMASK
        lea     rsi, [rsp + 8]
        xor     edx, edx
        mov     r10d, 8
        mov     eax, 14                 # rt_sigprocmask
        syscall
        ret

        .balign 16
entry:
        lea     rbx, [rip + job]
        jmp     child
        .balign 16
job:
