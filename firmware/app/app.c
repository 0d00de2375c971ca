/* The application: obeys the host, line by line (docs/protocol.md), and measures the model. */
#include <stddef.h>

#include "ec_board.h"
#include "ec_model.h"
#include "link.h"

enum { EC_COMMAND_UNKNOWN = 1, EC_COMMAND_EARLY = 2 };
enum { EC_INPUT_PLACE = 1, EC_INPUT_MISSING = 2 };

static bool clock_right;  /* what ec_board_init said */
static bool ready;        /* since a successful @hi */
static uint32_t run;      /* inferences since then */
static uint32_t input;    /* the input that is being received */
static uint32_t received; /* bytes of it that are there */

/* Sends what operator `op` took, and starts counting for the next one. It has a name of its own so
 * that a profiler outside can leave it out. */
void ec_profile_hook(uint32_t op);

static void fail(const char *phase, uint32_t code) {
    ec_link_begin("fail");
    ec_link_text(" where=", phase);
    ec_link_number(" code=", code);
    ec_link_end();
}

/* The code of a failure of the model: its status without the sign. */
static void fail_model(const char *phase, ec_model_status_t status) {
    fail(phase, (uint32_t)-(int32_t)status);
}

static void end(void) {
    ec_link_begin("end");
    ec_link_number(" code=", 0);
    ec_link_end();
}

static void send_sizes(const char *key, const ec_tensor_info_t *infos, uint32_t count) {
    if (count == 0) {
        ec_link_text(key, "-");
        return;
    }
    for (uint32_t i = 0; i < count; i++) ec_link_number(i == 0 ? key : ",", infos[i].bytes);
}

static void obey_hi(void) {
    ready = false;
    if (!clock_right) {
        fail("board", 1);
        return;
    }
    const ec_model_status_t status = ec_model_init();
    if (status != EC_MODEL_OK) {
        fail_model("model", status);
        return;
    }
    ready = true;
    run = input = received = 0;
    ec_link_begin("hello");
    ec_link_number(" proto=", 1);
    ec_link_text(" board=", ec_board.id);
    ec_link_text(" model=", ec_model_info.name);
    ec_link_text(" sha=", ec_model_info.sha256);
    ec_link_text(" backend=", ec_model_info.backend);
    send_sizes(" inputs=", ec_model_info.inputs, ec_model_info.input_count);
    send_sizes(" outputs=", ec_model_info.outputs, ec_model_info.output_count);
    ec_link_number(" ops=", ec_model_info.op_count);
    ec_link_number(" arena=", ec_model_info.arena_bytes);
    ec_link_text(" unit=", ec_board.unit);
    ec_link_text(" scale=", ec_board.scale);
    ec_link_number(" hz=", ec_board.hz);
    ec_link_end();
}

/* Goes on to the first input that is not there as a whole. */
static void skip_complete_inputs(void) {
    while (input < ec_model_info.input_count && received == ec_model_info.inputs[input].bytes) {
        input++;
        received = 0;
    }
}

static void obey_in(void) {
    uint32_t index, offset;
    const uint8_t *bytes;
    uint32_t count = 0;
    if (ec_link_take_number(&index) && ec_link_take(" o=") && ec_link_take_number(&offset) &&
        ec_link_take(" hex=")) {
        count = ec_link_take_bytes(&bytes);
    }
    if (count == 0) {
        fail("command", EC_COMMAND_UNKNOWN);
        return;
    }
    skip_complete_inputs();
    if (input == ec_model_info.input_count || index != input || offset != received ||
        count > ec_model_info.inputs[input].bytes - received) {
        fail("input", EC_INPUT_PLACE);
        return;
    }
    uint8_t *to = (uint8_t *)ec_model_input(input) + received;
    for (uint32_t i = 0; i < count; i++) to[i] = bytes[i];
    received += count;
    ec_link_begin("ok");
    ec_link_number(" o=", received);
    ec_link_end();
}

static void send_outputs(void) {
    for (uint32_t n = 0; n < ec_model_info.output_count; n++) {
        const uint8_t *bytes = (const uint8_t *)ec_model_output(n);
        const uint32_t size = ec_model_info.outputs[n].bytes;
        for (uint32_t start = 0; start < size; start += EC_LINK_DATA) {
            const uint32_t left = size - start;
            ec_link_begin("out");
            ec_link_number(" i=", run);
            ec_link_number(" n=", n);
            ec_link_number(" o=", start);
            ec_link_bytes(" hex=", bytes + start, left < EC_LINK_DATA ? left : EC_LINK_DATA);
            ec_link_end();
        }
    }
}

static void send_memory(void) {
    const uint32_t stack = ec_board_stack_used();
    ec_link_begin("mem");
    if (stack == EC_BOARD_UNKNOWN) {
        ec_link_text(" stack=", "-");
    } else {
        ec_link_number(" stack=", stack);
    }
    ec_link_number(" arena=", ec_model_arena_used());
    ec_link_end();
}

void ec_profile_hook(uint32_t op) {
    const uint32_t ticks = ec_board_ticks();
    ec_link_begin("op");
    ec_link_number(" i=", run);
    ec_link_number(" n=", op);
    ec_link_text(" kind=", ec_model_info.op_kinds[op]);
    ec_link_number(" ticks=", ticks);
    ec_link_end();
    ec_board_ticks_start();
}

static void go(bool profile) {
    skip_complete_inputs();
    if (input != ec_model_info.input_count) {
        fail("input", EC_INPUT_MISSING);
        return;
    }
    input = received = 0;
    ec_model_hook = profile ? ec_profile_hook : NULL;
    ec_board_ticks_start();
    const ec_model_status_t status = ec_model_invoke();
    const uint32_t ticks = ec_board_ticks();
    if (status != EC_MODEL_OK) {
        fail_model("invoke", status);
        return;
    }
    if (!profile) {
        ec_link_begin("run");
        ec_link_number(" i=", run);
        ec_link_number(" ticks=", ticks);
        ec_link_end();
    }
    send_outputs();
    send_memory();
    end();
    run++;
}

/* Whether the received line is `text` and nothing else. */
static bool is(const char *text) {
    return ec_link_take(text) && ec_link_at_end();
}

/* Obeys the received line. False: the host wants the end. */
static bool obey(void) {
    if (is("@hi")) {
        obey_hi();
    } else if (is("@bye")) {
        end();
        return false;
    } else if (!ready) {
        fail("command", EC_COMMAND_EARLY);
    } else if (ec_link_take("@in n=")) {
        obey_in();
    } else if (is("@go profile=0")) {
        go(false);
    } else if (is("@go profile=1")) {
        go(true);
    } else {
        fail("command", EC_COMMAND_UNKNOWN);
    }
    return true;
}

void ec_app_main(void) {
    clock_right = ec_board_init();
    for (;;) {
        const ec_link_status_t status = ec_link_receive();
        if (status == EC_LINK_EOF) {
            ec_board_exit(1);
            return;
        }
        if (status != EC_LINK_OK) {
            fail("line", status);
        } else if (!obey()) {
            ready = false;
            ec_board_exit(0);
        }
    }
}
