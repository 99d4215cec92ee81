#include "json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Deeper documents are refused, so that no file can exhaust the stack. */
#define DEPTH_LIMIT 32

static const char *skip_space(const char *at)
{
    while (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r')
        at++;
    return at;
}

void json_free(struct json *tree)
{
    while (tree != NULL) {
        struct json *next = tree->next;
        json_free(tree->child);
        free(tree->key);
        free(tree->text);
        free(tree);
        tree = next;
    }
}

/* ---- reading ------------------------------------------------------------------------------ */

static int read_hex(const char *at, unsigned int *value)
{
    *value = 0;
    for (int i = 0; i < 4; i++) {
        char c = at[i];
        unsigned int digit;
        if (c >= '0' && c <= '9')
            digit = (unsigned int)(c - '0');
        else if (c >= 'a' && c <= 'f')
            digit = (unsigned int)(c - 'a') + 10;
        else if (c >= 'A' && c <= 'F')
            digit = (unsigned int)(c - 'A') + 10;
        else
            return 0;
        *value = *value * 16 + digit;
    }
    return 1;
}

static char *write_utf8(char *out, unsigned int code)
{
    if (code < 0x80) {
        *out++ = (char)code;
    } else if (code < 0x800) {
        *out++ = (char)(0xC0 | (code >> 6));
        *out++ = (char)(0x80 | (code & 0x3F));
    } else if (code < 0x10000) {
        *out++ = (char)(0xE0 | (code >> 12));
        *out++ = (char)(0x80 | ((code >> 6) & 0x3F));
        *out++ = (char)(0x80 | (code & 0x3F));
    } else {
        *out++ = (char)(0xF0 | (code >> 18));
        *out++ = (char)(0x80 | ((code >> 12) & 0x3F));
        *out++ = (char)(0x80 | ((code >> 6) & 0x3F));
        *out++ = (char)(0x80 | (code & 0x3F));
    }
    return out;
}

/* Reads \uXXXX (`at` behind the u), with its second half where it is one of a surrogate pair. */
static const char *read_escaped_code(const char *at, char **out)
{
    unsigned int code, low;
    if (!read_hex(at, &code))
        return NULL;
    at += 4;
    if (code >= 0xD800 && code < 0xDC00) {
        if (at[0] != '\\' || at[1] != 'u' || !read_hex(at + 2, &low) || low < 0xDC00 || low > 0xDFFF)
            return NULL;
        at += 6;
        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    } else if (code >= 0xDC00 && code < 0xE000) {
        return NULL;
    }
    /* A NUL would end the C string early: not allowed in this program's documents. */
    if (code == 0)
        return NULL;
    *out = write_utf8(*out, code);
    return at;
}

/* Reads a string with `at` on its opening quote; returns what follows it, or NULL. */
static const char *read_string(const char *at, char **result)
{
    static const char escapes[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    const char *end;
    char *out;

    if (*at++ != '"')
        return NULL;
    for (end = at; *end != '\0' && *end != '"'; end++)
        if (*end == '\\' && end[1] != '\0')
            end++;
    /* Content never grows by decoding: the longest escape, six characters, becomes three bytes. */
    *result = out = malloc((size_t)(end - at) + 1);
    if (out == NULL)
        return NULL;
    while (*at != '"') {
        if ((unsigned char)*at < 0x20)
            goto invalid;
        if (*at != '\\') {
            *out++ = *at++;
            continue;
        }
        at++;
        if (*at == 'u') {
            at = read_escaped_code(at + 1, &out);
            if (at == NULL)
                goto invalid;
        } else {
            const char *found = *at != '\0' ? strchr(escapes, *at) : NULL;
            if (found == NULL)
                goto invalid;
            *out++ = meanings[found - escapes];
            at++;
        }
    }
    *out = '\0';
    return at + 1;

invalid:
    free(*result);
    *result = NULL;
    return NULL;
}

static const char *skip_digits(const char *at)
{
    if (*at < '0' || *at > '9')
        return NULL;
    while (*at >= '0' && *at <= '9')
        at++;
    return at;
}

static const char *read_number(const char *at, char **result)
{
    const char *start = at;
    if (*at == '-')
        at++;
    /* Zero stands alone: 012 is no number in JSON. */
    at = *at == '0' ? at + 1 : skip_digits(at);
    if (at != NULL && *at == '.')
        at = skip_digits(at + 1);
    if (at != NULL && (*at == 'e' || *at == 'E')) {
        at++;
        if (*at == '+' || *at == '-')
            at++;
        at = skip_digits(at);
    }
    if (at == NULL)
        return NULL;
    *result = malloc((size_t)(at - start) + 1);
    if (*result == NULL)
        return NULL;
    memcpy(*result, start, (size_t)(at - start));
    (*result)[at - start] = '\0';
    return at;
}

static const char *read_value(const char *at, struct json **result, int depth);

/* Reads the elements or members up to the closing bracket, with `at` behind the opening one. */
static const char *read_children(const char *at, struct json *parent, int depth)
{
    char close = parent->type == JSON_OBJECT ? '}' : ']';
    struct json **last = &parent->child;

    at = skip_space(at);
    if (*at == close)
        return at + 1;
    for (;;) {
        char *key = NULL;
        if (parent->type == JSON_OBJECT) {
            at = read_string(skip_space(at), &key);
            if (at == NULL)
                return NULL;
            at = skip_space(at);
            if (*at++ != ':') {
                free(key);
                return NULL;
            }
        }
        at = read_value(skip_space(at), last, depth + 1);
        if (*last != NULL)
            (*last)->key = key;
        else
            free(key);
        if (at == NULL)
            return NULL;
        last = &(*last)->next;
        at = skip_space(at);
        if (*at == close)
            return at + 1;
        if (*at++ != ',')
            return NULL;
    }
}

/* Reads one value into a new node. On failure returns NULL; the node, if any, stays the caller's. */
static const char *read_value(const char *at, struct json **result, int depth)
{
    static const struct {
        const char *word;
        enum json_type type;
    } words[] = {{"null", JSON_NULL}, {"false", JSON_FALSE}, {"true", JSON_TRUE}};
    struct json *node;

    *result = NULL;
    if (depth > DEPTH_LIMIT)
        return NULL;
    node = *result = calloc(1, sizeof(*node));
    if (node == NULL)
        return NULL;
    if (*at == '{' || *at == '[') {
        node->type = *at == '{' ? JSON_OBJECT : JSON_ARRAY;
        return read_children(at + 1, node, depth);
    }
    if (*at == '"') {
        node->type = JSON_STRING;
        return read_string(at, &node->text);
    }
    if (*at == '-' || (*at >= '0' && *at <= '9')) {
        node->type = JSON_NUMBER;
        return read_number(at, &node->text);
    }
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        size_t length = strlen(words[i].word);
        if (strncmp(at, words[i].word, length) == 0) {
            node->type = words[i].type;
            return at + length;
        }
    }
    return NULL;
}

struct json *json_parse(const char *document)
{
    struct json *tree;
    const char *end = read_value(skip_space(document), &tree, 0);
    if (end == NULL || *skip_space(end) != '\0') {
        json_free(tree);
        return NULL;
    }
    return tree;
}

/* ---- looking up --------------------------------------------------------------------------- */

struct json *json_member(const struct json *object, const char *key)
{
    if (object == NULL || object->type != JSON_OBJECT)
        return NULL;
    for (struct json *member = object->child; member != NULL; member = member->next)
        if (strcmp(member->key, key) == 0)
            return member;
    return NULL;
}

struct json *json_element(const struct json *array, unsigned int index)
{
    struct json *element;
    if (array == NULL || array->type != JSON_ARRAY)
        return NULL;
    for (element = array->child; element != NULL && index > 0; index--)
        element = element->next;
    return element;
}

const char *json_string(const struct json *node)
{
    return node != NULL && node->type == JSON_STRING ? node->text : NULL;
}

/* The value of digits that read_number accepted. strtod would follow the caller's locale. */
static double number_value(const char *at)
{
    double value = 0, scale = 1;
    int negative = *at == '-', exponent = 0, exponent_negative = 0;

    if (negative)
        at++;
    for (; *at >= '0' && *at <= '9'; at++)
        value = value * 10 + (*at - '0');
    if (*at == '.')
        for (at++; *at >= '0' && *at <= '9'; at++) {
            value = value * 10 + (*at - '0');
            scale *= 10;
        }
    if (*at == 'e' || *at == 'E') {
        at++;
        exponent_negative = *at == '-';
        if (*at == '-' || *at == '+')
            at++;
        for (; *at >= '0' && *at <= '9' && exponent < 400; at++)
            exponent = exponent * 10 + (*at - '0');
    }
    value /= scale;
    for (; exponent > 0; exponent--)
        value = exponent_negative ? value / 10 : value * 10;
    return negative ? -value : value;
}

int json_number(const struct json *node, double *value)
{
    if (node == NULL)
        return 0;
    if (node->type == JSON_TRUE || node->type == JSON_FALSE)
        *value = node->type == JSON_TRUE;
    else if (node->type == JSON_NUMBER)
        *value = number_value(node->text);
    else
        return 0;
    return 1;
}

int json_set_number(struct json *node, const char *digits)
{
    char *text = malloc(strlen(digits) + 1);
    if (text == NULL)
        return 0;
    strcpy(text, digits);
    json_free(node->child);
    free(node->text);
    node->child = NULL;
    node->text = text;
    node->type = JSON_NUMBER;
    return 1;
}

/* ---- writing ------------------------------------------------------------------------------ */

static void print_string(FILE *out, const char *text)
{
    fputc('"', out);
    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\')
            fprintf(out, "\\%c", c);
        else if (c < 0x20)
            fprintf(out, "\\u%04x", c);
        else
            fputc(c, out);
    }
    fputc('"', out);
}

static void print_value(FILE *out, const struct json *node, int depth)
{
    static const char *const words[] = {"null", "false", "true"};

    if (node->type <= JSON_TRUE) {
        fputs(words[node->type], out);
    } else if (node->type == JSON_NUMBER) {
        fputs(node->text, out);
    } else if (node->type == JSON_STRING) {
        print_string(out, node->text);
    } else {
        const char *brackets = node->type == JSON_OBJECT ? "{}" : "[]";
        fputc(brackets[0], out);
        for (const struct json *child = node->child; child != NULL; child = child->next) {
            fprintf(out, "%s\n%*s", child == node->child ? "" : ",", 2 * (depth + 1), "");
            if (child->key != NULL) {
                print_string(out, child->key);
                fputs(": ", out);
            }
            print_value(out, child, depth + 1);
        }
        if (node->child != NULL)
            fprintf(out, "\n%*s", 2 * depth, "");
        fputc(brackets[1], out);
    }
}

char *json_print(const struct json *tree)
{
    char *document = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&document, &length);
    if (out == NULL)
        return NULL;
    print_value(out, tree, 0);
    fputc('\n', out);
    if (fclose(out) != 0) {
        free(document);
        return NULL;
    }
    return document;
}
