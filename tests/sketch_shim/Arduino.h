/* As much of an Arduino core as a sketch with numbers over Serial uses, written by hand, for a program
 * of this computer: Serial is its standard input and output, and the board is switched off where the
 * input ends. For other compilers it is the interface alone. */
#ifndef SKETCH_SHIM_H_
#define SKETCH_SHIM_H_

#include <stdint.h>
#include <stddef.h>

extern "C" {
void setup(void);
void loop(void);
unsigned long micros(void);
unsigned long millis(void);
void delay(unsigned long ms);
}

class SerialPort {
  public:
    void begin(unsigned long baud);
    operator bool() const;
    int available(void);
    int read(void);
    size_t print(const char *text);
    size_t print(long number);
    size_t print(unsigned long number);
    size_t print(double number, int digits = 2);
    size_t println(void);
    template <typename T>
    size_t println(T value) {
        return print(value) + println();
    }
    size_t println(double number, int digits) {
        return print(number, digits) + println();
    }
};

extern SerialPort Serial;

#endif
