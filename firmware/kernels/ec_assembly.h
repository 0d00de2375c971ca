/* Functions in assembly, each in a section of its own so that the linker can drop it. */
#ifndef EC_ASSEMBLY_H
#define EC_ASSEMBLY_H

#define EC_FUNCTION(name)                                             \
    ".section .text." #name ", \"ax\", %progbits\n.balign 4\n"       \
    ".global " #name "\n.thumb_func\n.type " #name ", %function\n"   \
    #name ":\n"
#define EC_END(name) ".size " #name ", . - " #name "\n"

#endif
