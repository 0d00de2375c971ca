#include "Arduino.h"

#include <stdio.h>

SerialPort Serial;
static unsigned long now;

unsigned long micros(void) {
    return now += 7;
}

unsigned long millis(void) {
    return micros() / 1000;
}

void delay(unsigned long ms) {
    now += 1000 * ms;
}

void SerialPort::begin(unsigned long) {
}

SerialPort::operator bool() const {
    return true;
}

int SerialPort::available(void) {
    const int next = getchar();
    if (next == EOF) return 0;
    ungetc(next, stdin);
    return 1;
}

int SerialPort::read(void) {
    return getchar();
}

size_t SerialPort::print(const char *text) {
    return (size_t)printf("%s", text);
}

size_t SerialPort::print(long number) {
    return (size_t)printf("%ld", number);
}

size_t SerialPort::print(unsigned long number) {
    return (size_t)printf("%lu", number);
}

size_t SerialPort::print(double number, int digits) {
    return (size_t)printf("%.*f", digits, number);
}

size_t SerialPort::println(void) {
    return (size_t)printf("\n");
}

int main(void) {
    setup();
    while (!feof(stdin)) loop();
}
