package caisson

// NetworkWarning is what stands against a network that was attached all the same, such as another program's rules that drop its packets. Name is
// a few words, Reason what is wrong, Remedy what would help; it may be empty.
type NetworkWarning = struct{ Name, Reason, Remedy string }

// WarningAttachment is a place in a network that knows what stands against it. After Attach the container takes the warnings into its
// [Container.Isolation], as measures that are unavailable, and logs them ([WithLogger]). They are no errors.
type WarningAttachment interface {
	NetworkAttachment
	Warnings() []NetworkWarning
}
