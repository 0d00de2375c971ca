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
static bool standing;     /* the last inference was timed as a whole, and no input written since */
static uint32_t elapsed;  /* ticks that it took */
static uint32_t turns;    /* operators timed in the last inference, each time that they ran */

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

/* Begins a line of the answer about inference `number`. */
static void begin(const char *word, uint32_t number) {
    ec_link_begin(word);
    ec_link_number(" i=", number);
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
    standing = false;
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
    if (index > input || index >= ec_model_info.input_count) {
        fail("input", EC_INPUT_PLACE);
        return;
    }
    const uint32_t size = ec_model_info.inputs[index].bytes;
    const uint32_t taken = index < input ? size : received;
    uint8_t *to = (uint8_t *)ec_model_input(index) + offset;
    bool right = false;
    if (offset == taken && count <= size - taken) {
        for (uint32_t i = 0; i < count; i++) to[i] = bytes[i];
        received += count;
        standing = false;
        right = true;
    } else if (offset <= taken && count <= taken - offset) { /* the host repeats what is there */
        right = true;
        for (uint32_t i = 0; i < count; i++) right = right && to[i] == bytes[i];
    }
    if (!right) {
        fail("input", EC_INPUT_PLACE);
        return;
    }
    ec_link_begin("ok");
    ec_link_number(" n=", index);
    ec_link_number(" o=", offset + count);
    ec_link_end();
}

static void send_outputs(uint32_t number) {
    for (uint32_t n = 0; n < ec_model_info.output_count; n++) {
        const uint8_t *bytes = (const uint8_t *)ec_model_output(n);
        const uint32_t size = ec_model_info.outputs[n].bytes;
        for (uint32_t start = 0; start < size; start += EC_LINK_DATA) {
            const uint32_t left = size - start;
            begin("out", number);
            ec_link_number(" n=", n);
            ec_link_number(" o=", start);
            ec_link_bytes(" hex=", bytes + start, left < EC_LINK_DATA ? left : EC_LINK_DATA);
            ec_link_end();
        }
    }
}

static void send_memory(uint32_t number) {
    const uint32_t stack = ec_board_stack_used();
    begin("mem", number);
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
    begin("op", run);
    ec_link_number(" t=", turns++);
    ec_link_number(" n=", op);
    ec_link_text(" kind=", ec_model_info.op_kinds[op]);
    ec_link_number(" ticks=", ticks);
    ec_link_end();
    ec_board_ticks_start();
}

/* Sends all about the last inference that is not sent during it. */
static void send_answer(void) {
    const uint32_t number = run - 1;
    if (standing) {
        begin("run", number);
        ec_link_number(" ticks=", elapsed);
        ec_link_end();
    }
    send_outputs(number);
    send_memory(number);
    begin("end", number);
    ec_link_number(" turns=", turns);
    ec_link_end();
}

static void go(uint32_t number, bool profile) {
    if (standing && !profile && number == run - 1) { /* the host repeats: it lost the answer */
        send_answer();
        return;
    }
    skip_complete_inputs();
    if (number != run || input != ec_model_info.input_count) {
        fail("input", EC_INPUT_MISSING);
        return;
    }
    standing = false;
    input = received = turns = 0;
    ec_model_hook = profile ? ec_profile_hook : NULL;
    ec_board_ticks_start();
    const ec_model_status_t status = ec_model_invoke();
    elapsed = ec_board_ticks();
    if (status != EC_MODEL_OK) {
        fail_model("invoke", status);
        return;
    }
    run++;
    standing = !profile;
    send_answer();
}

/* Whether the received line is `text` and nothing else. */
static bool is(const char *text) {
    return ec_link_take(text) && ec_link_at_end();
}

static void obey_go(void) {
    uint32_t number;
    if (ec_link_take_number(&number)) {
        const bool profile = is(" profile=1");
        if (profile || is(" profile=0")) {
            go(number, profile);
            return;
        }
    }
    fail("command", EC_COMMAND_UNKNOWN);
}

/* Obeys the received line. False: the host wants the end. */
static bool obey(void) {
    if (is("@hi")) {
        obey_hi();
    } else if (is("@bye")) {
        ec_link_begin("bye");
        ec_link_end();
        return false;
    } else if (!ready) {
        fail("command", EC_COMMAND_EARLY);
    } else if (ec_link_take("@in n=")) {
        obey_in();
    } else if (ec_link_take("@go i=")) {
        obey_go();
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
