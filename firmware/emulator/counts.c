/* QEMU plugin: how often every block of instructions ran inside one function, exactly.
 *
 * Arguments: out=FILE, function=ADDRESS, hook=ADDRESS (optional), calls=N (0: all).
 *
 * Counting starts with the first instruction of the function and ends when it returns. A call of
 * the hook, from its first instruction to its return, is left out, and so is the block that calls
 * it (generated code skips that block where there is no hook); each call of the hook starts a new
 * part. The file has, for each call of the function and each part of it,
 *
 *     part CALL PART
 *     START INSTRUCTIONS TIMES TAKEN      one line a block that ran, START in hex
 *
 * and a last line "done". TIMES is how often the block ran, TAKEN how often control went on
 * anywhere else than at the next address.
 *
 * A block is what QEMU translates in one go: straight-line code that is entered at its start only.
 * Return addresses need no register: they are where the calling block ended.
 *
 * The few declarations below are those of QEMU's plugin interface (include/qemu/qemu-plugin.h),
 * unchanged since QEMU 4.2, so that no header of QEMU is needed. EC_PLUGIN_API is the version of
 * the interface that the QEMU at hand wants: 1 before QEMU 9, 2 since.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef EC_PLUGIN_API
#define EC_PLUGIN_API 1
#endif
#define EC_EXPORT __attribute__((visibility("default")))
#define EC_NO_REGISTERS 0 /* QEMU_PLUGIN_CB_NO_REGS */
#define EC_NOWHERE UINT64_MAX

typedef uint64_t plugin_id_t;
typedef struct qemu_plugin_tb plugin_block_t;
typedef struct qemu_plugin_insn plugin_insn_t;

extern size_t qemu_plugin_tb_n_insns(const plugin_block_t *block);
extern uint64_t qemu_plugin_tb_vaddr(const plugin_block_t *block);
extern plugin_insn_t *qemu_plugin_tb_get_insn(const plugin_block_t *block, size_t index);
extern uint64_t qemu_plugin_insn_vaddr(const plugin_insn_t *insn);
extern size_t qemu_plugin_insn_size(const plugin_insn_t *insn);
extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id_t id,
                                                  void (*callback)(plugin_id_t, plugin_block_t *));
extern void qemu_plugin_register_vcpu_tb_exec_cb(plugin_block_t *block,
                                                 void (*callback)(unsigned int, void *), int flags,
                                                 void *data);
extern void qemu_plugin_register_atexit_cb(plugin_id_t id, void (*callback)(plugin_id_t, void *),
                                           void *data);

EC_EXPORT extern int qemu_plugin_version;
EC_EXPORT int qemu_plugin_install(plugin_id_t id, const void *info, int argc, char **argv);

int qemu_plugin_version = EC_PLUGIN_API;

/* A block may be translated more than once; all its translations share one of these. */
typedef struct ec_block {
    struct ec_block *next;
    uint64_t start;
    uint64_t end;
    size_t insns;
    uint64_t times;
    uint64_t taken;
} ec_block_t;

typedef enum { EC_OUTSIDE, EC_COUNTING, EC_PAUSED } ec_state_t;

enum { EC_BUCKETS = 4096, EC_PAGE = 1024 };
static ec_block_t *ec_blocks[EC_BUCKETS];
static FILE *ec_out;
static uint64_t ec_function = EC_NOWHERE;
static uint64_t ec_hook = EC_NOWHERE;
static uint64_t ec_calls;

static ec_state_t ec_state = EC_OUTSIDE;
static uint64_t ec_leave;  /* where the function returns to */
static uint64_t ec_resume; /* where the hook returns to */
static uint64_t ec_call;
static uint64_t ec_part;
static ec_block_t *ec_last;   /* the block that ran before this one */
static ec_block_t *ec_before; /* the same, NULL where it was not counted */

/* Writes what was counted since the last time, and forgets it. */
static void ec_write_part(void) {
    fprintf(ec_out, "part %" PRIu64 " %" PRIu64 "\n", ec_call, ec_part);
    for (size_t i = 0; i < EC_BUCKETS; i++) {
        for (ec_block_t *block = ec_blocks[i]; block != NULL; block = block->next) {
            if (block->times != 0) {
                fprintf(ec_out, "%" PRIx64 " %zu %" PRIu64 " %" PRIu64 "\n", block->start,
                        block->insns, block->times, block->taken);
                block->times = 0;
                block->taken = 0;
            }
        }
    }
    ec_part++;
}

/* Opens and closes the window, as control enters `block`. */
static void ec_switch(const ec_block_t *block) {
    if (ec_state == EC_PAUSED && block->start == ec_resume) {
        ec_state = EC_COUNTING;
        ec_before = NULL;
    } else if (ec_state == EC_COUNTING && block->start == ec_leave) {
        ec_before->taken++; /* the return itself */
        ec_write_part();
        ec_state = EC_OUTSIDE;
        ec_call++;
    } else if (ec_state == EC_COUNTING && block->start == ec_hook) {
        ec_before->times--;
        ec_write_part();
        ec_resume = ec_before->end;
        ec_state = EC_PAUSED;
    }
    if (ec_state == EC_OUTSIDE && block->start == ec_function && ec_last != NULL &&
        (ec_calls == 0 || ec_call < ec_calls)) {
        ec_leave = ec_last->end;
        ec_state = EC_COUNTING;
        ec_before = NULL;
        ec_part = 0;
    }
}

/* Whether the code at `start` stands right behind `block`.
 *
 * Where a 4-byte instruction crosses the end of a page, QEMU ends the block before it, but has read
 * its first half and counts that to the size of the instruction before.
 */
static bool ec_follows(const ec_block_t *block, uint64_t start) {
    bool read_on = block->end % EC_PAGE == 0 && start == block->end - 2;
    return start == block->end || read_on;
}

/* Called before every block that runs. */
static void ec_on_run(unsigned int cpu, void *data) {
    ec_block_t *block = data;
    (void)cpu;
    ec_switch(block);
    if (ec_state == EC_COUNTING) {
        block->times++;
        if (ec_before != NULL && !ec_follows(ec_before, block->start)) {
            ec_before->taken++;
        }
        ec_before = block;
    }
    ec_last = block;
}

static ec_block_t *ec_block_of(uint64_t start, uint64_t end, size_t insns) {
    ec_block_t **bucket = &ec_blocks[(start >> 1) % EC_BUCKETS];
    for (ec_block_t *block = *bucket; block != NULL; block = block->next) {
        if (block->start == start && block->end == end) {
            return block;
        }
    }
    ec_block_t *block = calloc(1, sizeof *block);
    if (block == NULL) {
        abort();
    }
    *block = (ec_block_t){.next = *bucket, .start = start, .end = end, .insns = insns};
    *bucket = block;
    return block;
}

/* Called for every block that is translated. */
static void ec_on_translate(plugin_id_t id, plugin_block_t *block) {
    (void)id;
    size_t insns = qemu_plugin_tb_n_insns(block);
    const plugin_insn_t *last = qemu_plugin_tb_get_insn(block, insns - 1);
    uint64_t end = qemu_plugin_insn_vaddr(last) + qemu_plugin_insn_size(last);
    ec_block_t *own = ec_block_of(qemu_plugin_tb_vaddr(block), end, insns);
    qemu_plugin_register_vcpu_tb_exec_cb(block, ec_on_run, EC_NO_REGISTERS, own);
}

static void ec_on_exit(plugin_id_t id, void *data) {
    (void)id;
    (void)data;
    fputs("done\n", ec_out);
    fclose(ec_out);
}

/* The value of `argument` where it is KEY=VALUE with this `key`, else NULL. */
static const char *ec_value(const char *argument, const char *key) {
    size_t length = strlen(key);
    bool same = strncmp(argument, key, length) == 0 && argument[length] == '=';
    return same ? argument + length + 1 : NULL;
}

int qemu_plugin_install(plugin_id_t id, const void *info, int argc, char **argv) {
    (void)info;
    for (int i = 0; i < argc; i++) {
        const char *value;
        if ((value = ec_value(argv[i], "out")) != NULL) {
            ec_out = fopen(value, "w");
        } else if ((value = ec_value(argv[i], "function")) != NULL) {
            ec_function = strtoull(value, NULL, 0);
        } else if ((value = ec_value(argv[i], "hook")) != NULL) {
            ec_hook = strtoull(value, NULL, 0);
        } else if ((value = ec_value(argv[i], "calls")) != NULL) {
            ec_calls = strtoull(value, NULL, 0);
        } else {
            fprintf(stderr, "counts: unknown argument %s\n", argv[i]);
            return 1;
        }
    }
    if (ec_out == NULL || ec_function == EC_NOWHERE) {
        fprintf(stderr, "counts: out (a file that can be written) and function are needed\n");
        return 1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, ec_on_translate);
    qemu_plugin_register_atexit_cb(id, ec_on_exit, NULL);
    return 0;
}
