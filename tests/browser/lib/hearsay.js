/** The module as the gateway serves it. */

export * from "../../../crates/hearsay-gateway/assets/hearsay.js";
