/* Runs the model on samples that come as numbers over Serial, and prints what it makes of each.
 *
 * A sample is one number for each element of the model's inputs, in the units that the model was
 * trained on, parted by blanks, commas or line ends. The first sample, at the start, is all zeros.
 * Send the next one after its answer: what comes meanwhile has room for 64 bytes on many boards. */
#include <math.h>
#include <stdlib.h>

#include <${header}>

static const unsigned long BAUD = 115200;

static char text[32];    /* the number that is being received */
static uint32_t length;  /* its characters */
static uint32_t input;   /* the input that it is for */
static uint32_t element; /* and where there */

static uint32_t elements(const ec_tensor_info_t &info) {
    uint32_t count = 1;
    for (uint32_t i = 0; i < info.rank; i++) count *= (uint32_t)info.shape[i];
    return count;
}

static double between(double value, double low, double high) {
    return value < low ? low : value > high ? high : value;
}

/* Puts a number where element `index` of an input stands, as the model stores it. */
static void store(const ec_tensor_info_t &info, void *to, uint32_t index, float value) {
    double stored = value;
    if (info.scale != 0) {
        const double ratio = value / info.scale;
        stored = trunc(ratio + copysign(0.5, ratio)) + info.zero_point;
    }
    switch (info.dtype) {
        case EC_FLOAT32: ((float *)to)[index] = value; break;
        case EC_INT8: ((int8_t *)to)[index] = (int8_t)between(stored, -128, 127); break;
        case EC_UINT8: ((uint8_t *)to)[index] = (uint8_t)between(stored, 0, 255); break;
        case EC_INT16: ((int16_t *)to)[index] = (int16_t)between(stored, -32768, 32767); break;
        case EC_INT32: ((int32_t *)to)[index] = (int32_t)between(stored, INT32_MIN, INT32_MAX); break;
        case EC_INT64: ((int64_t *)to)[index] = (int64_t)stored; break;
        case EC_BOOL: ((uint8_t *)to)[index] = value != 0; break;
    }
}

/* The number that element `index` of an output stands for. */
static float load(const ec_tensor_info_t &info, const void *from, uint32_t index) {
    float stored = 0;
    switch (info.dtype) {
        case EC_FLOAT32: stored = ((const float *)from)[index]; break;
        case EC_INT8: stored = ((const int8_t *)from)[index]; break;
        case EC_UINT8: stored = ((const uint8_t *)from)[index]; break;
        case EC_INT16: stored = ((const int16_t *)from)[index]; break;
        case EC_INT32: stored = (float)((const int32_t *)from)[index]; break;
        case EC_INT64: stored = (float)((const int64_t *)from)[index]; break;
        case EC_BOOL: stored = ((const uint8_t *)from)[index]; break;
    }
    return info.scale != 0 ? (stored - (float)info.zero_point) * info.scale : stored;
}

/* Whether the model has one output, with a score for each of several classes: a row of numbers, and
 * not as many as go in, as those of a model that gives its input back. */
static bool classifies() {
    const ec_tensor_info_t &output = ec_model_info.outputs[0];
    const uint32_t count = elements(output);
    return ec_model_info.output_count == 1 && output.rank == 2 && output.shape[0] == 1 &&
           count > 1 && count != elements(ec_model_info.inputs[0]);
}

static void print_class() {
    const ec_tensor_info_t &info = ec_model_info.outputs[0];
    const void *scores = ec_model_output(0);
    uint32_t best = 0;
    for (uint32_t i = 1; i < elements(info); i++) {
        if (load(info, scores, i) > load(info, scores, best)) best = i;
    }
    Serial.print("class ");
    Serial.print((unsigned long)best);
    Serial.print(", score ");
    Serial.println(load(info, scores, best), 4);
}

static void print_outputs() {
    for (uint32_t n = 0; n < ec_model_info.output_count; n++) {
        const ec_tensor_info_t &info = ec_model_info.outputs[n];
        Serial.print("output ");
        Serial.print((unsigned long)n);
        Serial.print(":");
        for (uint32_t i = 0; i < elements(info); i++) {
            Serial.print(" ");
            Serial.print(load(info, ec_model_output(n), i), 6);
        }
        Serial.println();
    }
}

static void run() {
    const unsigned long start = micros();
    const ec_model_status_t status = ec_model_invoke();
    const unsigned long took = micros() - start;
    if (status != EC_MODEL_OK) {
        Serial.print("failed with status ");
        Serial.println((long)status);
        return;
    }
    if (classifies()) {
        print_class();
    } else {
        print_outputs();
    }
    Serial.print("took ");
    Serial.print(took);
    Serial.println(" us");
}

/* Takes the next number of the sample, and runs the model when it was the last. */
static void take(float value) {
    const ec_tensor_info_t &info = ec_model_info.inputs[input];
    store(info, ec_model_input(input), element, value);
    if (++element < elements(info)) return;
    element = 0;
    if (++input < ec_model_info.input_count) return;
    input = 0;
    run();
}

/* Takes the number in `text`; what is none starts the sample afresh. */
static void take_text() {
    char *end;
    text[length] = '\0';
    const double value = strtod(text, &end);
    if (end == text + length && value - value == 0) {
        take((float)value);
    } else {
        Serial.print("not a number: ");
        Serial.print(text);
        Serial.println("; the sample starts again");
        input = element = 0;
    }
    length = 0;
}

void setup() {
    Serial.begin(BAUD);
    while (!Serial && millis() < 3000) {
    }
    Serial.print(ec_model_info.name);
    if (ec_model_init() != EC_MODEL_OK) {
        Serial.println(": it does not start");
        for (;;) delay(1000);
    }
    uint32_t count = 0;
    for (uint32_t i = 0; i < ec_model_info.input_count; i++) {
        count += elements(ec_model_info.inputs[i]);
    }
    Serial.print(": a sample is ");
    Serial.print((unsigned long)count);
    Serial.println(" numbers");
    for (uint32_t i = 0; i < count; i++) take(0);
}

void loop() {
    while (Serial.available() > 0) {
        const char next = (char)Serial.read();
        if (next == ' ' || next == ',' || next == '\t' || next == '\r' || next == '\n') {
            if (length > 0) take_text();
        } else {
            if (length == sizeof text - 1) {
                text[0] = '?'; /* too long for a number */
            } else {
                text[length++] = next;
            }
        }
    }
}
